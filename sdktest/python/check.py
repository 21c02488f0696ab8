"""One line a check on stdout: "ok NAME" or "FAIL NAME: reason". The Go test makes a subtest of each."""

import json
import os
import traceback

BASE_URL = os.environ["OPENAI_BASE_URL"]
with open(os.environ["OCCAM_TICKETS"], encoding="utf-8") as file:
    _data = json.load(file)
CATEGORIES, TICKETS = _data["categories"], _data["tickets"]


def check(name):
    """Runs the decorated function at once and prints its verdict."""

    def run(body):
        try:
            body()
            print(f"ok {name}", flush=True)
        except Exception:  # every failure is one line
            print(f"FAIL {name}: " + traceback.format_exc().replace("\n", " | "), flush=True)
        return body

    return run


def raises(kind, body):
    """Runs body, which must raise kind, and returns the exception."""
    try:
        body()
    except kind as error:
        return error
    raise AssertionError(f"did not raise {kind.__name__}")


class Tally:
    """Counts who answered, by the gateway's own headers, and how many answers are right."""

    def __init__(self):
        self.local = self.passed = self.right = 0

    def add(self, headers, category, order_id, truth):
        if "@" in headers.get("x-occam-model", ""):
            self.local += 1
        else:
            self.passed += 1
        self.right += category == truth["category"] and order_id == truth["order_id"]

    def verify(self, n):
        assert self.local > 0 and self.passed > 0, f"{self.local} answers from the specialist, {self.passed} from the generalist"
        assert self.right >= 0.9 * n, f"{self.right} of {n} answers are right"
