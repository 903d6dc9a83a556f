"""Prints the page of all codes from the OpenAPI document: `python tests/codes_page.py > docs/codes.md`, after the document has changed."""

from document import committed
from harness import ROOT

BEFORE = """# Codes of errors and warnings

Errors are entries of `errors`, and a response has the status of its first error. Warnings (from 2000 on) are entries of `messages`: the request was accepted all the same.
So are [hints](api.md#hints) (2100), which stand beside an error. What differs from case to case is written as `…`.

A running service has this table at `/docs/codes`, and programs find it in the document: `x-error-codes` of `Message.code`.

| code | HTTP | when | message |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    codes = committed(ROOT / "openapi.yaml").absolute["components"]["schemas"]["Message"]["properties"]["code"]["x-error-codes"]
    rows = [(row["code"], row.get("status", "–"), row["meaning"], row["message"]) for row in codes]
    return BEFORE + "".join("| " + " | ".join(str(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row) + " |\n" for row in rows)


if __name__ == "__main__":
    print(page(), end="")
