"""Learning from preferences on problems whose answers are known exactly."""
