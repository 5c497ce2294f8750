"""The benchmarks that a policy answers."""

from collections.abc import Mapping

from nemo_sspo.config.benchmarks import AnsweredBenchmark
from nemo_sspo.public_benchmarks.alpaca_eval import AlpacaEval
from nemo_sspo.public_benchmarks.arena_hard import ArenaHard
from nemo_sspo.public_benchmarks.mt_bench import MtBench
from nemo_sspo.public_benchmarks.own import OwnQuestions
from nemo_sspo.public_benchmarks.protocol import Benchmark

BENCHMARKS: Mapping[AnsweredBenchmark, Benchmark] = {
    "alpaca-eval": AlpacaEval(),
    "mt-bench": MtBench(),
    "arena-hard": ArenaHard(),
    "own": OwnQuestions(),
}
