"""The page of a coverage run."""


def render_page(rows: list[dict]) -> str:
    """Markdown."""
    return f'{len(rows)}\n'
