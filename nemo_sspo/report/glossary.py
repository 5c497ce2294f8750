"""What the words of the page mean."""

from nemo_sspo.report.blocks import Table

_TERMS = (
    ("base", "the policy that the run started from; iteration t makes policy t of policy t - 1 (“previous”)"),
    ("oracle", "the model that says with what probability one answer to a prompt beats another"),
    ("win rate", "mean probability, by the oracle, that a policy's answers beat the other's; ½: neither wins"),
    ("interval", "where the win rate lies if the prompts are drawn again (bootstrap); [0.45, 0.55] includes ½"),
    ("at equal length", "the win rate with the advantage of longer answers taken out"),
    ("held-out prompts", "prompts for evaluation alone, never trained on"),
    ("pair", "the best and the worst of a prompt's responses by win rate: the chosen and the rejected one"),
    ("margin", "how far the oracle's preferences of two answers are apart; 0: it does not prefer either"),
    ("similarity S", "cosine of the two answers' sentence embeddings: 1 where they mean the same"),
    ("gate", "draws the targets of similar answers towards ½, so that wording alone is not learned (S-SPPO)"),
    ("target", "the win rate that training moves an answer's log-ratio towards, after the gate"),
    ("log-ratio d", "log π_θ(y|x) / π_t(y|x), in nats: how much likelier the trained policy makes an answer"),
    ("d_w, d_l", "the log-ratio of the chosen (winning) and of the rejected (losing) answer"),
    ("repulsion, λ", "a term that pushes the hidden states of a pair's answers apart, and its weight"),
    ("step-1 identity", "before the first step every log-ratio is 0, so the loss is known in closed form"),
    ("effective rank", "how many directions vectors spread over; it falls where answers become one another"),
    ("distinct", "share of answers, or n-grams, that differ from the others to the same prompt"),
    ("collapse", "answers become alike: effective rank and distinct n-grams fall, similarities rise"),
    ("order flips", "pairs whose winner changes with the order in which the oracle sees the answers"),
    ("MFU", "share of the hardware's peak arithmetic that training used"),
)


def glossary_table() -> Table:
    """Terms and meanings."""
    return Table(("term", "meaning"), _TERMS)
