"""What every store has to do: the same tests over each."""
