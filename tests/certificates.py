"""Certificates as a test needs them, wrong ones too, made with openssl."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

CONFIG = """
[ca]
default_ca = authority
[authority]
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
policy = anything
unique_subject = no
[anything]
commonName = supplied
[req]
distinguished_name = nothing
[nothing]
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[alone]
basicConstraints = critical, CA:false
subjectAltName = {names}
[leaf]
subjectAltName = {names}
authorityKeyIdentifier = keyid
"""


class Pair(NamedTuple):
    """A certificate and its key, as files in PEM form."""

    cert: Path
    key: Path


class Authority:
    """A CA of its own. `file` is its certificate."""

    def __init__(self, folder: Path, name: str = "A test's CA") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        folder.mkdir(parents=True)
        self._folder = folder
        self.file = folder / "ca.pem"
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        self._configure("DNS:none")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._openssl(
            *("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "30", "-extensions", "root"),
            *("-keyout", folder / "ca.key", "-out", self.file),
        )

    def issue(
        self,
        name: str,
        names: str = "DNS:localhost,IP:127.0.0.1",
        *,
        days: tuple[float, float] = (-1, 10),
        password: str = "",
    ) -> Pair:
        """A certificate that is valid between these days from now."""
        self._configure(names)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        locked = ("-passout", f"pass:{password}") if password else ("-nodes",)
        self._openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *locked),
            *("-subj", f"/CN={name}", "-keyout", pair.key, "-out", request),
        )
        now = datetime.now(UTC)
        start, end = ((now + timedelta(days=day)).strftime("%Y%m%d%H%M%SZ") for day in days)
        self._openssl(
            *("ca", "-batch", "-notext", "-extensions", "leaf", "-startdate", start, "-enddate", end),
            *("-in", request, "-out", pair.cert),
        )
        return pair

    def self_signed(self, name: str) -> Pair:
        """One that nobody but itself has signed."""
        self._configure("IP:127.0.0.1")
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *(
                "-subj",
                f"/CN={name}",
                "-days",
                "30",
                "-extensions",
                "alone",
                "-keyout",
                pair.key,
                "-out",
                pair.cert,
            ),
        )
        return pair

    def _configure(self, names: str) -> None:
        self._config = self._folder / "openssl.cnf"
        self._config.write_text(CONFIG.format(folder=self._folder, names=names))

    def _openssl(self, command: str, *arguments: str | Path) -> None:
        line = ["openssl", command, "-config", self._config, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
