"""What a check found: lines to read, and problems that keep an audit from going well. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Findings:
    """Lines under headings, in the order in which they were found."""

    sections: list[tuple[str, list[str]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def section(self, heading: str, lines: Sequence[str] = ()) -> None:
        """Begin a section."""
        self.sections.append((heading, list(lines)))

    def add(self, *lines: str) -> None:
        """Add lines to the last section."""
        self.sections[-1][1].extend(lines)

    def problem(self, text: str) -> None:
        """Note a problem where it was found, and for the list at the end."""
        self.problems.append(text)
        self.add(f"PROBLEM: {text}")

    def text(self) -> str:
        """Everything, as it is printed.

        >>> findings = Findings()
        >>> findings.section("model", ["2 layers"])
        >>> print(findings.text())
        model
          2 layers
        no problem found
        """
        blocks = ["\n".join([heading, *(f"  {line}" for line in lines)]) for heading, lines in self.sections]
        count = len(self.problems)
        last = "no problem found" if not count else f"{count} problem{'s' if count > 1 else ''} found, see above"
        return "\n".join([*blocks, last])
