"""The page in HTML: headings, paragraphs and code of a Markdown file, with the version below."""

import argparse
import html
import pathlib
import re

parser = argparse.ArgumentParser()
parser.add_argument("--version", required=True)
parser.add_argument("file", type=pathlib.Path)
arguments = parser.parse_args()


def block(text):
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", html.escape(text.strip(), quote=False))
    return f"<h1>{text[2:]}</h1>" if text.startswith("# ") else f"<p>{text}</p>"


blocks = arguments.file.read_text().strip().split("\n\n")
print("<!doctype html>\n<title>Words</title>")
print("\n".join(map(block, blocks)))
print(f"<footer>words {html.escape(arguments.version)}</footer>")
