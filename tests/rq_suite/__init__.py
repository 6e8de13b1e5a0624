"""RQ's own tests, run with its worker replaced by ours: `make rq-suite`, not part of the tests here."""
