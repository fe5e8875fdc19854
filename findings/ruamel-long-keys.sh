#!/usr/bin/env bash
# ruamel.yaml folds a long key of a mapping in braces over two lines, and cannot read what it has written.
#
# Behaviour (ruamel.yaml 0.19.1, the parser of DVC 3.67.1): `YAML(typ="safe").dump` writes mappings of scalars in braces and
# breaks lines at 80 columns, also inside a key. A plain key must stand on one line (YAML 1.2, 7.4.2), and its own reader says
# so. PyYAML 6.0.3 writes the same mapping on one line. In block style (`default_flow_style = False`) ruamel keeps keys whole.
# Seen: ParserError, expected ',' or '}', but got ':'.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env && env/bin/pip install --quiet --disable-pip-version-check ruamel.yaml==0.19.1
env/bin/python - <<'PY'
from io import StringIO

from ruamel.yaml import YAML
from ruamel.yaml.parser import ParserError

rules = {"rules": {"scanned before surgery and then once more": "baseline", "outcome known after a year of follow-up": "event"}}


def read_back(**style) -> str:
    yaml, text = YAML(typ="safe"), StringIO()
    vars(yaml).update(style)
    yaml.dump(rules, text)
    print(text.getvalue())
    try:
        return "the same" if YAML(typ="safe").load(text.getvalue()) == rules else "another"
    except ParserError as error:
        return error.problem


found = read_back(), read_back(default_flow_style=False)
print("in braces:", found[0], "· in blocks:", found[1])
assert found == ("expected ',' or '}', but got ':'", "the same"), "the behaviour has changed"
PY
