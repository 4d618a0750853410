"""A throw-away certificate authority, made with the `openssl` program."""

import subprocess
from pathlib import Path

from tests import tools


class Authority:
    """Signs certificates that live for two days, in PEM files below a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=throw-away",
            "-keyout", str(self._key), "-out", str(self.certificate),
        )  # fmt: skip

    def signed(self, name: str, *, ended: bool = False) -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1 under this common name; with `ended` it has expired."""
        certificate, key, request = (self._folder / f"{name}.{ending}" for ending in ("pem", "key", "csr"))
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out",
                      str(request))  # fmt: skip
        extensions = self._folder / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        days = "-1" if ended else "2"
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key), "-days", days,
            "-CAcreateserial", "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key

    def keystore(self, name: str, *, ended: bool = False) -> Path:
        """Key and certificate in one file, as Kafka reads them."""
        certificate, key = self.signed(name, ended=ended)
        store = self._folder / f"{name}.store.pem"
        store.write_text(key.read_text() + certificate.read_text())
        return store

    def _openssl(self, *arguments: str) -> None:
        subprocess.run([tools.find("openssl"), *arguments], check=True, capture_output=True, cwd=self._folder)
