"""How many queries a model decodes at once."""

from srt.model.inference import MAX_QUERIES, queries_for_memory


def test_groups_are_powers_of_two_and_grow_with_the_memory():
    groups = [queries_for_memory(10**9 * size) for size in range(200)]
    assert groups == sorted(groups)
    assert groups[0] >= 1
    assert groups[-1] == MAX_QUERIES
    assert all(group & (group - 1) == 0 for group in groups)
