"""What is kept of what is read: steps, the runner that applies them, and the record of what each did."""
