"""What is longer than a make line: the generated documentation and the demo."""
