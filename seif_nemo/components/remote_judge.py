"""A judge behind an OpenAI-compatible endpoint: the main rank asks, all ranks get the verdicts."""

from collections.abc import Sequence

from seif_nemo.components.main_rank import on_main_rank
from seif_nemo.config.reward import RewardConfig
from seif_nemo.judging.endpoint import EndpointJudge, judge_identity, judge_name, make_endpoint_judge
from seif_nemo.parallel.topology import Topology
from seif_nemo.roles.prompts import JudgerTemplate
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Verdict


class OnMainRank:
    """The judge of the main rank, asked by all ranks together; `judge` is None on the others."""

    def __init__(self, judge: EndpointJudge | None, topology: Topology, *, name: str, identity: str) -> None:
        assert (judge is not None) == topology.is_main
        self._judge = judge
        self._topology = topology
        self._name = name
        self._identity = identity

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._identity

    def ask_ahead(self, question: Question) -> None:
        """See `protocols/judging.py`."""
        if self._judge is not None:
            self._judge.ask_ahead(question)

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        return on_main_rank(lambda: _present(self._judge)(questions), self._topology)


def connect_remote_judge(
    config: RewardConfig, topology: Topology, *, template: JudgerTemplate, run_seed: int
) -> OnMainRank | None:
    """The judge at `reward.judge_endpoint`, tried out; None without one. Collective.

    Raises ValueError, the same on every rank, for a key that is missing on the main rank or an endpoint of no use.
    """
    if config.judge_endpoint is None:
        return None
    made: list[EndpointJudge] = []  # on the main rank

    def try_out() -> str | None:
        try:
            made.append(make_endpoint_judge(config, template=template, run_seed=run_seed))
            made[0].probe()
        except ValueError as error:
            return str(error)
        return None

    problem = on_main_rank(try_out, topology)
    if problem is not None:
        raise ValueError(problem)
    return OnMainRank(
        made[0] if made else None, topology, name=judge_name(config), identity=judge_identity(config, template)
    )


def _present(judge: EndpointJudge | None) -> EndpointJudge:
    assert judge is not None
    return judge
