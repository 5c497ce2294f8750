"""Parts of a run whose kinds are functions: loss, gate and repulsion.

``kind`` names the variant: a function of ``objective/`` and a YAML file in ``conf/``. A kind of ``custom`` names an
import path instead (``my_package.my_module:function``).
"""

from typing import Annotated, Any, ClassVar

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.roles import ImportPath


class FunctionVariant(Frozen):
    """A variant whose ``kind`` names a function of ``objective/``, or of the user's where it is ``custom``."""

    section: ClassVar[str]
    """The configuration's section that it stands in."""
    signature: ClassVar[tuple[str, ...]]
    """Positional arguments of the function."""
    not_arguments: ClassVar[frozenset[str]] = frozenset()
    """Fields that are no arguments of the function; every other one is a keyword argument."""
    kind: str

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        return self.model_dump(exclude={"kind", *self.not_arguments})


class CustomFunction(FunctionVariant):
    """A function of the user's."""

    function: Annotated[str, ImportPath()]
    """Import path ``package.module:function`` of a function with the signature of those in ``objective/``."""
    arguments: dict[str, float] = {}
    """Keyword arguments passed on."""

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        return dict(self.arguments)
