"""The commands' parsers, in this process; `tests/scripts` runs the commands."""

from __future__ import annotations

import pytest
from refusals import refused

from splavu.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_its_options(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: splavu {name} ")


def test_an_unknown_command_is_refused():
    with refused("audti"):
        main(["audti"])
