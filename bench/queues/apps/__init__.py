"""The peers' applications, as their users write them: workers and clients import one of these."""
