"""Training of policies on Megatron.

A tensor's name ends with a letter for each dimension, here and in the docstrings below; a digit is a size.

    B  rows of a microbatch                              H  hidden size
    S  positions of a row on this rank                   F  feed-forward size
    T  positions of the whole row                        V  rows of the output weight on this rank
    P  pairs                                             A  attention heads
    R  responses: 2P, in the order of their pairs,       G  key-value heads
       each pair's chosen one first                      Q  attention heads to a key-value head
    N  response tokens on this rank                      D  channels of a head
    C  tokens of a tile of logits, or of a part of it    I, J  blocks of queries, of keys

`objective/` counts in its own letters: there B is the pairs of a `PairBatch`.
"""
