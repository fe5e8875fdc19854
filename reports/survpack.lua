-- Gives Pandoc what Quarto does itself: numbers for sections, figures and tables, references to
-- them, callouts, alt text, and a box for wide tables to scroll in. Runs before citeproc.

local NAMES = { sec = "Section", fig = "Figure", tbl = "Table" }
local labels = {} -- identifier to "Figure 3"
local counts = { fig = 0, tbl = 0 }

local function kind_of(id)
  local kind = (id or ""):match("^(%a+)%-")
  return NAMES[kind] and kind or nil
end

local function number(kind, id)
  counts[kind] = counts[kind] + 1
  labels[id] = NAMES[kind] .. "\u{a0}" .. counts[kind]
  return labels[id]
end

local function numbered(label, caption)
  local head = pandoc.Span({ pandoc.Str(label .. ".") }, { class = "float-label" })
  return pandoc.Inlines({ head, pandoc.Space() }) .. caption
end

-- Headings: number them, and make room for the title, which is the page's only <h1>.
local function sections(blocks)
  local at = { 0, 0, 0, 0, 0, 0 }
  return blocks:walk({
    Header = function(header)
      if not header.classes:includes("unnumbered") then
        at[header.level] = at[header.level] + 1
        for deeper = header.level + 1, #at do at[deeper] = 0 end
        local value = table.concat(at, ".", 1, header.level)
        labels[header.identifier] = NAMES.sec .. "\u{a0}" .. value
        local shown = pandoc.Span({ pandoc.Str(value) }, { class = "header-section-number" })
        header.content = pandoc.Inlines({ shown, pandoc.Space() }) .. header.content
      end
      header.level = math.min(header.level + 1, 6)
      return header
    end,
  })
end

local function figure(float)
  local caption = pandoc.utils.blocks_to_inlines(float.caption.long)
  if kind_of(float.identifier) == "fig" then
    float.caption.long = { pandoc.Plain(numbered(number("fig", float.identifier), caption)) }
  end
  float = float:walk({
    Image = function(image) -- the writer makes the alt text of an image's own description
      image.caption = { pandoc.Str(image.attributes["fig-alt"] or pandoc.utils.stringify(caption)) }
      image.attributes["fig-alt"] = nil
      return image
    end,
  })
  return float
end

-- Keeps "(0.57 to 0.69)" on one line, so that a narrow cell breaks before the interval.
local function intervals_whole(inlines)
  local inside = false
  for k, inline in ipairs(inlines) do
    if inline.t == "Str" then
      if inline.text:match("^%(%d") or inline.text:match("^%(−%d") then inside = true end
      if inline.text:match("%)$") then inside = false end
    elseif inside and (inline.t == "Space" or inline.t == "SoftBreak") then
      inlines[k] = pandoc.Str("\u{a0}")
    end
  end
  return inlines
end

local function table_box(content, id, caption)
  content = content:walk({ Inlines = intervals_whole })
  -- as wide as their words: Pandoc would set widths by the dashes of the source
  content.colspecs = content.colspecs:map(function(column) return { column[1], nil } end)
  local class = #content.colspecs > 6 and { "table-float", "wide" } or { "table-float" }
  -- a list, because the order of a table's keys changes from run to run
  local attributes = { { "role", "region" }, { "tabindex", "0" }, { "aria-label", pandoc.utils.stringify(caption) } }
  local box = pandoc.Div({ content }, pandoc.Attr("", { "table-box" }, attributes))
  local blocks = { box }
  if #caption > 0 then
    table.insert(blocks, 1, pandoc.Div({ pandoc.Plain(caption) }, { class = "table-caption" }))
  end
  return pandoc.Div(blocks, pandoc.Attr(id, class))
end

local function bare_table(content)
  local caption, id = pandoc.utils.blocks_to_inlines(content.caption.long), content.identifier
  content.caption.long, content.identifier = {}, ""
  if kind_of(id) == "tbl" then caption = numbered(number("tbl", id), caption) end
  return table_box(content, id, caption)
end

-- A div with a table identifier: its last paragraph is the caption, as in Quarto.
local function table_div(div)
  local caption = div.content:remove(#div.content).content
  local content = div.content:find_if(function(block) return block.t == "Table" end)
  if not content then error("table @" .. div.identifier .. " has no table in it") end
  return table_box(content, div.identifier, numbered(number("tbl", div.identifier), caption))
end

local function callouts(blocks)
  return blocks:walk({
    Div = function(div)
      local class = div.classes:find_if(function(name) return name:match("^callout%-%a+$") end)
      if not class then return nil end
      local title = div.attributes.title or class:gsub("callout%-", ""):gsub("^%l", string.upper)
      div.attributes.title, div.attributes.role = nil, "note"
      div.classes = { "callout", class }
      div.content:insert(1, pandoc.Div({ pandoc.Plain({ pandoc.Str(title) }) }, { class = "callout-title" }))
      return div
    end,
  })
end

local function floats(blocks)
  return blocks:walk({
    traverse = "topdown", -- in the order of the page; a float is not entered again
    Figure = function(float) return figure(float), false end,
    Table = function(content) return bare_table(content), false end,
    Div = function(div)
      if kind_of(div.identifier) == "tbl" then return table_div(div), false end
    end,
  })
end

local function references(blocks)
  return blocks:walk({
    Cite = function(cite)
      local links = pandoc.Inlines({})
      for _, citation in ipairs(cite.citations) do
        if not kind_of(citation.id) then return nil end
        local label = labels[citation.id]
        if not label then error("reference @" .. citation.id .. " points at nothing on this page") end
        if #links > 0 then links:extend({ pandoc.Str(","), pandoc.Space() }) end
        links:insert(pandoc.Link({ pandoc.Str(label) }, "#" .. citation.id, "", { class = "crossref" }))
      end
      return links
    end,
  })
end

function Pandoc(doc)
  doc.blocks = references(callouts(floats(sections(doc.blocks))))
  return doc
end
