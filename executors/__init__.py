"""The executors: where jobs live and run. Users name them by URL, never by import."""
