from __future__ import annotations

import torch

from speechadapt.decoders.masked_diffusion.canvas import Canvas, choose

START, PAD, MASK = 1, 0, 9


def canvas(lengths: list[int], candidates: int = 2, seeds: list[int] | None = None) -> Canvas:
    return Canvas(
        lengths,
        candidates,
        start_id=START,
        pad_id=PAD,
        mask_id=MASK,
        seeds=seeds or list(range(len(lengths))),
    )


def always(token: int):
    def predict(rows, tokens, hidden, temperature, random):
        count = int(hidden.sum())
        return torch.full((count,), token), torch.full((count,), -0.5)

    return predict


def test_a_new_canvas_has_its_start_and_masks_up_to_each_length() -> None:
    made = canvas([4, 2])
    assert made.tokens[:, 0].tolist() == [[START, MASK, MASK, MASK], [START, MASK, PAD, PAD]]
    assert made.open[:, 1].tolist() == [[False, True, True, True], [False, True, False, False]]


def test_numbers_of_an_utterance_do_not_hang_on_its_neighbours() -> None:
    together, alone = canvas([6, 4], seeds=[7, 8]), canvas([4], seeds=[8])
    together.uniform([0])
    first = together.uniform([0, 1])[1, :, :4]
    assert torch.equal(first, alone.uniform([0])[0])
    assert torch.equal(together.uniform([1])[0, :, :4], alone.uniform([0])[0])
    assert not torch.equal(first, canvas([4], seeds=[9]).uniform([0])[0])


def test_writing_touches_the_hidden_places_of_its_rows_alone() -> None:
    made = canvas([4, 4])
    hidden = made.open[1:].clone()
    hidden[:, :, 3] = False
    moved = made.write(always(5), [1], hidden)
    assert moved.tolist() == [True]
    assert made.tokens[0].tolist() == [[START, MASK, MASK, MASK]] * 2
    assert made.tokens[1].tolist() == [[START, 5, 5, MASK]] * 2
    assert made.log_probs[1].tolist() == [[0.0, -0.5, -0.5, 0.0]] * 2
    assert made.passes == [0, 1]
    assert made.write(always(5), [1], hidden).tolist() == [False]


def test_the_network_is_shown_masks_at_hidden_places() -> None:
    made = canvas([3], candidates=1)
    made.write(always(5), [0], made.open)
    shown = []

    def look(rows, tokens, hidden, temperature, random):
        shown.append(tokens.tolist())
        return torch.tensor([6]), torch.tensor([-1.0])

    made.write(look, [0], torch.tensor([[[False, True, False]]]))
    assert shown == [[[[START, MASK, 5]]]]
    assert made.tokens.tolist() == [[[START, 6, 5]]]


def test_candidates_that_are_alike_are_asked_for_once() -> None:
    made = canvas([3], candidates=4)
    asked = []

    def count(rows, tokens, hidden, temperature, random):
        asked.append(tuple(tokens.shape))
        return torch.tensor([5, 6]), torch.tensor([-1.0, -2.0])

    made.write(count, [0], made.open, alike=True)
    assert asked == [(1, 1, 3)]
    assert made.tokens.tolist() == [[[START, 5, 6]] * 4]
    assert made.log_probs.tolist() == [[[0.0, -1.0, -2.0]] * 4]


def test_what_is_not_settled_stays_masked() -> None:
    made = canvas([4], candidates=1)
    made.write(always(5), [0], made.open, settle=lambda sure: torch.tensor([[[0, 1, 0, 0]]]) > 0)
    assert made.tokens.tolist() == [[[START, 5, MASK, MASK]]]
    assert made.log_probs.tolist() == [[[0.0, -0.5, 0.0, 0.0]]]


def test_the_likeliest_token_is_chosen_with_its_log_probability() -> None:
    logits = torch.tensor([[1.0, 3.0, -torch.inf], [2.0, 0.0, -torch.inf]])
    chosen, sure = choose(logits)
    assert chosen.tolist() == [1, 0]
    assert torch.allclose(sure, logits.log_softmax(-1)[[0, 1], [1, 0]])


def test_tokens_are_drawn_in_proportion_and_never_where_forbidden() -> None:
    random = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([0.2, 0.5, 0.3, 0.0]).log().expand(20000, 4)
    chosen, sure = choose(logits, 1.0, random)
    shares = torch.bincount(chosen, minlength=4) / 20000
    assert torch.allclose(shares, torch.tensor([0.2, 0.5, 0.3, 0.0]), atol=0.015)
    assert torch.allclose(sure, logits[0][chosen])
    colder = choose(logits, 0.5, random)[0]
    assert float((colder == 1).float().mean()) > 0.6
    last = choose(logits[:1], 1.0, torch.tensor([1.0]))[0]
    assert last.tolist() == [2]
