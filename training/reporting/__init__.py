"""What a training reports: epochs, evaluation, result files."""
