"""Compiling the network for the fit."""

from torch import nn

from fakenews.errors import ConfigError

_REMEDY = "leave compile out"


def compile_network(network: nn.Module) -> None:
    """Compile a network in its place, so that its parameters keep their names.

    Batches differ in their number of rows and tokens, so both are left open.

    Args:
        network: Compiled at its first call.

    Raises:
        ConfigError: This machine has no compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        # Code for a GPU is Triton's, which a C++ program starts.
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            "compile=true needs a C++ compiler and there is none: install g++, name one in the "
            f"environment variable CXX, or {_REMEDY}"
        ) from error
    network.compile(dynamic=True)


def not_compiled(error: Exception) -> ConfigError:
    """What a user is told when the compiler fails.

    Args:
        error: Of torch.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[0].strip()[:200] if lines else repr(error)
    return ConfigError(f"compile=true failed ({reason}): {_REMEDY}")
