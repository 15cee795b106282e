"""`docs/compatibility.md`, made from the rules and the marks of the tests: `make docs`.

The page is the same for the same rules and marks, whatever is installed. It is not made while a rule and its marks do
not agree; `problems` names what is wrong.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.compat.marks import ROOT, Mark, collect
from tests.compat.rules import Rule, load

PAGE = ROOT / "docs" / "compatibility.md"
STATES = ("proven", "different", "later")

HEAD = """\
<!-- Made by `make docs` from tests/compat/rules.toml and the markers of the tests. Edit those. -->

# Compatibility with Sidekiq

What Sidekiq 8.1 does, one row per rule, and how Pillion stands to it. Older versions are named where they differ.

| Status | Rules | Meaning |
|---|---:|---|
| proven | {proven} | the tests in the row fail if Pillion does otherwise |
| different | {different} | on purpose, for the reason given; tests in the row show what Pillion does instead |
| later | {later} | not built yet |
| in all | {total} | |

Sidekiq's known traps are among the rules. They are not copied; their rows say what happens instead.
"""


def state(rule: Rule) -> str:
    """What the page says about a rule. Whether that is true is for `problems`."""
    return "different" if rule.differs else "later" if rule.later else "proven"


def problems(rules: Mapping[str, Rule], marks: Iterable[Mark]) -> Iterator[str]:
    """Everything about rules and marks that cannot be."""
    tests = _by_rule(marks)
    for name in sorted(tests.keys() - rules.keys()):
        yield f"{name}: no such rule, but {tests[name][0].test} is marked with it"
    for rule in rules.values():
        found = tests.get(rule.id, [])
        if rule.differs and rule.later:
            yield f"{rule.id}: both `differs` and `later`; one of them is not true"
        elif rule.later and found:
            yield f"{rule.id}: `later`, but {found[0].test} proves it; take `later` away"
        elif not rule.differs and not rule.later and not found:
            yield f"{rule.id}: neither a test nor `differs` nor `later`"
        for mark in found:
            if mark.instead and not rule.differs:
                yield f"{rule.id}: {mark.test} is marked instead=True, but the rule has no `differs`"
            elif rule.differs and not mark.instead:
                yield f"{rule.id}: `differs`, but {mark.test} is marked as its proof; say instead=True there"


def page(rules: Mapping[str, Rule], headings: Mapping[str, str], marks: Iterable[Mark]) -> str:
    """The whole page."""
    counts = Counter(state(rule) for rule in rules.values())
    parts = [HEAD.format(total=len(rules), **{name: counts[name] for name in STATES})]
    tests = _by_rule(marks)
    for area, heading in headings.items():
        rows = [_row(rule, tests.get(rule.id, [])) for rule in rules.values() if rule.area == area]
        parts.append("\n".join([f"## {heading}\n", "| Id | Rule | Status | Tests |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _row(rule: Rule, marks: Sequence[Mark]) -> str:
    why = rule.differs or rule.later
    status = f"{state(rule)}: {why}" if why else state(rule)
    tests = "<br>".join(f"`{mark.test}`" for mark in marks)
    return f"| {' | '.join(_cell(words) for words in (f'`{rule.id}`', rule.rule, status, tests))} |"


def _cell(words: str) -> str:
    return words.replace("|", r"\|")


def _by_rule(marks: Iterable[Mark]) -> dict[str, list[Mark]]:
    found = defaultdict[str, list[Mark]](list)
    for mark in sorted(marks):
        found[mark.rule].append(mark)
    return dict(found)


def main() -> int:
    """Write the page; 1 with the problems on stderr where it cannot be."""
    rules, headings = load()
    marks = collect()
    found = list(problems(rules, marks))
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        PAGE.write_text(page(rules, headings, marks))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
