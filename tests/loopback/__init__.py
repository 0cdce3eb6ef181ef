"""An OpenAI-compatible server for tests, in a thread of the test's own process."""
