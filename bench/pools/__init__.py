"""The suite `local`: pools of processes on one machine."""
