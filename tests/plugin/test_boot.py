"""`python -m fastreid_cc`: the stock script with the plug-in, its children, clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import make_market, options

from fastreid_cc import __main__ as cli
from fastreid_cc import __version__

ROOT = Path(__file__).resolve().parents[2]
STOCK = Path(__file__).parent / "stock_train_net.py"


def run(folder, *arguments, data="", python=(sys.executable, "-m", "fastreid_cc"), **variables):
    """Runs the command line in `folder`, where neither the repository nor fastreid lies."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FASTREID_DATASETS": str(data), **variables}
    return subprocess.run(
        [*python, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=folder,
        env=env,
    )


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return make_market(tmp_path_factory.mktemp("boot_data"))


@pytest.fixture(scope="module")
def two_processes(market, tmp_path_factory):
    """The stock script over two processes, with an out-of-tree module, DataLoader children too."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "my_parts.py").write_text(
        "import os, sys\n"
        "active = str('fastreid_cc.plugin' in sys.modules)\n"
        "open(f'seen_{os.getpid()}', 'w').write(active)\n"
    )
    script = folder / "train_net.py"  # as on fast-reid's master, debugger's helper and all
    script.write_text(STOCK.read_text().replace("import sys\n", "import sys\nimport bughook\n", 1))
    answer = run(
        folder,
        "--import",
        "my_parts",
        script,
        "--num-gpus",
        2,
        "--dist-url",
        "auto",
        *options(folder / "out", "SOLVER.MAX_EPOCH", 1, "MODEL.DEVICE", "cuda"),
        data=market,
        CUDA_VISIBLE_DEVICES="",
    )
    return folder, answer


def test_two_processes_train_the_stock_script(two_processes):
    folder, answer = two_processes
    assert answer.returncode == 0, answer.stderr[-3000:]
    log = (folder / "out" / "log.txt").read_text()
    assert "Rank of current process: 0. World size: 2" in log
    assert "mAP" in answer.stdout and "broadcast_buffers" not in answer.stderr
    assert (folder / "out" / "model_final.pth").is_file()
    first = json.loads((folder / "out" / "metrics.json").read_text().splitlines()[0])
    assert first["total_loss"] > 0


def test_out_of_tree_parts_are_imported_in_the_children_too(two_processes):
    folder, answer = two_processes
    seen = [path.read_text() for path in folder.glob("seen_*")]
    assert seen == ["True"] * 3, answer.stderr[-2000:]  # parent and two children, after the plug-in


def test_an_error_in_one_process_ends_all_and_is_shown(market, tmp_path):
    script = tmp_path / "train_net.py"
    script.write_text(
        STOCK.read_text().replace(
            "    return trainer.train()\n",
            "    from fastreid.utils import comm\n"
            "    if comm.get_rank() == 1:\n"
            "        raise ZeroDivisionError('rank one is broken')\n"
            "    return trainer.train()\n",
        )
    )
    assert "rank one" in script.read_text()
    answer = run(
        tmp_path,
        "train",
        script,
        "--num-gpus",
        2,
        "--dist-url",
        "auto",
        *options(tmp_path / "out"),
        data=market,
        CUDA_VISIBLE_DEVICES="",
        FASTREID_CC_TIMEOUT_SECONDS="60",
    )
    assert answer.returncode == 1
    assert "ZeroDivisionError: rank one is broken" in answer.stderr


def test_a_script_runs_as_it_would_alone(tmp_path):
    """Name, arguments, path and exit status; and the plug-in, of which it never speaks."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "beside.py").write_text("here = True\n")
    script = tmp_path / "tools" / "script.py"
    script.write_text(
        "import json, sys, beside\n"
        "if __name__ == '__main__':\n"
        "    active = 'fastreid_cc.plugin' in sys.modules\n"
        "    print(json.dumps([sys.argv, __file__, sys.path[0], active]))\n"
        "    sys.exit(7)\n"
    )
    answer = run(tmp_path, "tools/script.py", "--flag", "KEY", "a b")
    assert answer.returncode == 7, answer.stderr[-2000:]
    argv, file, first, active = json.loads(answer.stdout.splitlines()[-1])
    assert argv == ["tools/script.py", "--flag", "KEY", "a b"]
    assert file == str(script) and first == str(script.parent)
    assert active


def test_missing_fastreid_is_one_message_without_a_traceback(tmp_path):
    code = (
        "import runpy, sys; sys.modules['fastreid'] = None;"
        f"sys.argv = ['fastreid_cc', {str(STOCK)!r}];"
        "runpy.run_module('fastreid_cc', run_name='__main__', alter_sys=True)"
    )
    answer = run(tmp_path, python=(sys.executable, "-c", code))
    assert answer.returncode == 1
    assert "pip install --no-deps fastreid==1.4.0" in answer.stderr
    assert "Traceback" not in answer.stderr and len(answer.stderr.splitlines()) <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense", "x.py"], "unrecognized arguments: --nonsense"),
        (["--import"], "--import: expected one argument"),
        (["nosuch.py"], "'nosuch.py' is neither a script nor a command"),
        (["doctr"], "Did you mean doctor?"),
        (["Export", "x"], "Did you mean export?"),
        (["train"], "the following arguments are required: --config-file"),
        (["train", "nosuch.py"], "no such script; a config goes after --config-file"),
        (["train", "--config-file", "a", "--num-gpus", "0"], "--num-gpus: 0 must be at least 1"),
        ([], "name a command or a script"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments, message, capsys):
    try:
        status = cli.main(arguments)
    except SystemExit as ended:  # of argparse
        status = ended.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"fastreid_cc {__version__}\n"


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    printable = capsys.readouterr().out
    for name in cli.commands():
        assert f"  {name}" in printable


def test_commands_are_found_in_their_folder_and_get_their_arguments(tmp_path, monkeypatch, capsys):
    import fastreid_cc.commands

    (tmp_path / "say_it.py").write_text(
        'r"""repeats what it is told, or """\nimport my_extra\n'
        "def main(argv):\n    print(argv, my_extra.here)\n    return 3\n"
    )
    (tmp_path / "my_extra.py").write_text("here = 1\n")
    monkeypatch.setattr(fastreid_cc.commands, "__path__", [str(tmp_path)])
    monkeypatch.setattr(cli, "COMMANDS", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FASTREID_CC_IMPORT", "")  # which the command sets for what it starts
    assert cli.commands()["say-it"] == "repeats what it is told, or"
    assert cli.main(["--import", "my_extra", "say-it", "--k", "1"]) == 3
    assert "['--k', '1'] 1" in capsys.readouterr().out
    sys.modules.pop("fastreid_cc.commands.say_it")


def test_the_command_line_itself_imports_neither_torch_nor_fastreid(tmp_path):
    code = (
        "import sys, fastreid_cc.__main__ as m; m.parser().format_help();"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'fastreid', 'numpy'}))"
    )
    answer = run(tmp_path, python=(sys.executable, "-c", code))
    assert answer.stdout.splitlines()[-1] == "[]", answer.stderr
