"""Random names for containers that were given none: an adjective and the surname of somebody who built or understood things."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ADJECTIVES = (
    "able airy amber ample ardent astute balmy bold brave breezy bright brisk calm candid careful cheerful chipper clear "
    "clever cosy crisp curious dapper daring deft eager earnest easy fair fearless festive fleet fluent fond frank fresh "
    "gallant gentle giddy glad golden graceful handy happy hardy hearty honest hopeful humble jaunty jolly jovial keen "
    "kind lively loyal lucid lucky mellow merry mindful mirthful neat nimble noble open patient peaceful placid plucky "
    "polite proud quick quiet radiant ready rosy serene sharp silver simple sincere smart snug sober spry stately steady "
    "stellar stoic sturdy subtle sunny swift tender thrifty tidy tranquil true trusty upbeat valiant vivid warm watchful "
    "wise witty worthy zesty"
)

_SURNAMES = (
    "abel agnesi ampere anning apgar archimedes aryabhata ashby babbage baird bartik bassi bell benz bernoulli bhaskara "
    "bohr boole borg brahe braille brunel burnell carson carver cauchy cavendish celsius chandra chatelet clarke coulomb "
    "crick curie cuvier daguerre daimler dalton darwin davy descartes diesel dijkstra dirac drew eckert edison ehrlich "
    "einstein engelbart erdos euclid euler faraday fermat fermi fibonacci fleming fourier franklin galilei galois galvani "
    "gauss germain gilbreth goeppert golgi goodall gutenberg haber hahn halley hamilton harvey herschel hertz hilbert "
    "hodgkin hooke hopper hubble humboldt huygens hypatia jacquard jenner joliot joule kare kelvin kepler khayyam "
    "khwarizmi kilby koch kovalevskaya lagrange lamarr laplace leavitt leibniz lemaitre linnaeus liskov lister lovelace "
    "lumiere mach marconi maxwell mayer mcclintock meitner mendel mercator merian montgolfier morse napier newton nightingale "
    "nobel noether ohm olbers pascal pasteur pauling payne perey planck poincare ptolemy ramanujan ritchie roentgen rubin "
    "rutherford salk shannon siemens somerville steinmetz stevin tereshkova tesla thales torricelli turing vesalius volta "
    "watt wegener wilkes wiles wright wu yalow yonath zeppelin zuse"
)


def random_name(is_free: Callable[[str], bool]) -> str:
    """A name that `is_free` accepts: two words, and a number behind them once many names are taken."""
    adjectives, surnames = _ADJECTIVES.split(), _SURNAMES.split()
    attempt = 0
    while True:
        seed = int.from_bytes(os.urandom(8), "little")
        rest, first = divmod(seed, len(adjectives))
        rest, second = divmod(rest, len(surnames))
        name = f"{adjectives[first]}_{surnames[second]}"
        if attempt >= 3:
            name += str(rest % 10 ** (attempt - 2))
        if is_free(name):
            return name
        attempt += 1
