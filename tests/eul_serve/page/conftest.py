"""A browser for the tests of the status page."""

from tests.browser.fixtures import axe, browser, leave_out

__all__ = ["axe", "browser"]
pytest_collection_modifyitems = leave_out
