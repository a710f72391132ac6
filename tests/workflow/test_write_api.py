"""The page on the library says what the code says."""

import srt
from workflow.tools.write_api import ORDER, PAGE, api_page


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == api_page(), "run `python -m workflow.tools.write_api`"


def test_every_public_name_is_on_the_page():
    assert set(ORDER) == set(srt.__all__)
