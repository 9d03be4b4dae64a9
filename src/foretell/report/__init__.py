"""What is told about a run: everything from manifests and JSONL logs, nothing from printed output."""
