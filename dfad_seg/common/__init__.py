"""What every room stands on: errors, files, the environment. It imports nothing of the package."""
