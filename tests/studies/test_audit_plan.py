from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.auditing.plan import REFUSED_SIZE, Item, draw, draw_evenly, plan_batches

shapes = st.tuples(st.integers(1, 4), st.integers(10, 14))
item_lists = st.lists(st.tuples(shapes, st.booleans()), max_size=40).map(
    lambda pairs: [Item(f"s{index}", shape, anchor) for index, (shape, anchor) in enumerate(pairs)]
)


@given(item_lists, st.integers(1, 7))
def test_every_sample_is_in_exactly_one_batch_of_equal_shape(items: list[Item], size: int) -> None:
    plan = plan_batches(items, size, refused=["x", "y"])
    assert [batch.index for batch in plan] == list(range(len(plan)))
    assert Counter(name for batch in plan for name in batch.ids) == Counter(["x", "y", *(item.id for item in items)])
    by_id = {item.id: item for item in items}
    for batch in plan:
        assert 1 <= len(batch.ids) <= (REFUSED_SIZE if batch.kind == "refused" else size)
        if batch.kind == "trace":
            assert len({(by_id[name].shape, by_id[name].anchor) for name in batch.ids}) == 1


@given(item_lists)
def test_plan_is_a_function_of_its_arguments_and_starts_with_the_longest(items: list[Item]) -> None:
    plan = plan_batches(items, 3)
    assert plan == plan_batches(list(items), 3)
    by_id = {item.id: item for item in items}
    lengths = [by_id[batch.ids[0]].shape for batch in plan]
    assert lengths == sorted(lengths, reverse=True)


def test_batches_are_as_few_as_they_can_be() -> None:
    items = [Item(str(index), (2, 30 + index % 2)) for index in range(10)]
    assert [len(batch.ids) for batch in plan_batches(items, 4)] == [4, 1, 4, 1]


def test_bad_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan_batches([], 0)
    with pytest.raises(ValueError, match="'a' occurs 2 times"):
        plan_batches([Item("a", (1,))], 1, refused=["a"])


@given(st.sets(st.text(max_size=5), max_size=30), st.integers(0, 40), st.integers(0, 3))
def test_draw_is_stable_when_data_grow_elsewhere(names: set[str], count: int, seed: int) -> None:
    ordered = sorted(names)
    drawn = draw(ordered, count, seed)
    assert len(drawn) == min(count, len(names))
    assert drawn == [name for name in ordered if name in set(drawn)]
    assert set(draw(ordered[::-1], count, seed)) == set(drawn)


def test_draws_differ_by_seed() -> None:
    names = [f"s{index}" for index in range(100)]
    assert draw(names, 10, 0) != draw(names, 10, 1)
    assert draw(names, None, 0) == names


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abc"), max_size=30), st.integers(1, 30))
def test_draw_evenly_gives_every_group_its_turn(groups: dict[str, str], count: int) -> None:
    drawn = draw_evenly(groups, count, seed=0)
    assert len(drawn) == min(count, len(groups))
    sizes, taken = Counter(groups.values()), Counter(groups[name] for name in drawn)
    for group in sizes:
        for other in sizes:
            assert taken[group] >= min(sizes[group], taken[other] - 1)
