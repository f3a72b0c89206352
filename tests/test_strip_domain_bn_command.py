"""`python -m fastreid_cc strip-domain-bn`: the target's branch as a plain checkpoint."""

import pytest
import torch

from fastreid_cc import __main__ as cli
from fastreid_cc.networks.domain_batch_norm import Domains, convert


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    convert(net, Domains(("target", "a", "b")), gate_scale=2.0)
    return net


def test_the_folded_file_is_plain_and_gives_the_same_features(net, tmp_path, capsys):
    net(torch.randn(6, 3, 5, 5))
    torch.save({"model": net.state_dict(), "epoch": 3}, tmp_path / "in.pth")
    assert cli.main(["strip-domain-bn", str(tmp_path / "in.pth"), str(tmp_path / "out.pth")]) == 0
    assert "13 of 20 entries left out" in capsys.readouterr().out
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval()
    plain.load_state_dict(torch.load(tmp_path / "out.pth")["model"])
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(plain(x), net.eval()(x))


def test_what_cannot_be_folded_is_one_message(net, tmp_path, capsys):
    with torch.no_grad():
        net[1].gates[0].fill_(1.0)
    torch.save({"model": net.state_dict()}, tmp_path / "gate.pth")
    (tmp_path / "torn.pth").write_bytes(b"no")
    for name, status, words in (
        ("gate", 1, "1.gates.0 is a gate"),
        ("torn", 1, "is no checkpoint"),
        ("gone", 2, "no such file"),
    ):
        paths = [str(tmp_path / f"{name}.pth"), str(tmp_path / "out.pth")]
        assert cli.main(["strip-domain-bn", *paths]) == status
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*out.pth*"))


def test_a_full_disk_leaves_the_old_file(net, tmp_path, monkeypatch):
    torch.save({"model": net.state_dict()}, tmp_path / "in.pth")
    (tmp_path / "out.pth").write_bytes(b"old")

    def no_room(data, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_room)
    assert cli.main(["strip-domain-bn", str(tmp_path / "in.pth"), str(tmp_path / "out.pth")]) == 1
    assert (tmp_path / "out.pth").read_bytes() == b"old"
