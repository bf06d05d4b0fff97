"""What the command lines share: arguments, messages, launching."""
