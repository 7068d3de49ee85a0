"""Certificates of the lab: one authority per site and server kind, one client certificate per role.

Kafka and PostgreSQL have separate authorities, so that a certificate for one never opens the other. Within one
authority the common name decides what a client may do: every server authorises by it.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = timedelta(days=90)
_RENEW_BEFORE_END = timedelta(days=30)
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The files a client needs to connect."""

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder: ``ca.pem``, ``ca.key`` and what it issued."""

    folder: Path
    name: str

    @property
    def ca(self) -> Path:
        """The authority's own certificate, which its servers and clients trust."""
        return self.folder / "ca.pem"

    def client(self, role: str) -> ClientCertificate:
        """Where the certificate of a role is."""
        return ClientCertificate(self.folder / f"{role}.pem", self.folder / f"{role}.key", self.ca)

    def is_current(self, now: datetime) -> bool:
        """Whether the authority exists and stays valid for a good while; what it issued ends with it."""
        if not (self.ca.is_file() and (self.folder / "ca.key").is_file()):
            return False
        return x509.load_pem_x509_certificate(self.ca.read_bytes()).not_valid_after_utc > now + _RENEW_BEFORE_END

    def found(self, now: datetime) -> None:
        """Make the authority anew; nothing it issued before is valid any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.iterdir():
            old.unlink()
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(self.name)
        certificate = (
            _builder(subject, subject, key.public_key(), now, now + _VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_private(self.folder / "ca.key", _pem_key(key))
        self.ca.write_text(_pem(certificate), encoding="ascii")

    def issue_client(self, role: str) -> ClientCertificate:
        """Make a certificate whose common name is the role, readable by the caller alone."""
        key, chain = self._issue(role, server=False)
        files = self.client(role)
        _write_private(files.key, key)
        files.certificate.write_text(chain, encoding="ascii")
        return files

    def issue_server(self, name: str) -> tuple[str, str]:
        """Make a certificate for localhost; returns key and chain as PEM.

        It also serves as a client certificate, as a broker is a client of its controller.
        """
        return self._issue(name, server=True)

    def _issue(self, name: str, *, server: bool, end: datetime | None = None) -> tuple[str, str]:
        ca = x509.load_pem_x509_certificate(self.ca.read_bytes())
        ca_key = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), password=None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])]
        builder = (
            _builder(
                _name(name), ca.subject, key.public_key(), ca.not_valid_before_utc, end or ca.not_valid_after_utc
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if server:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
                ),
                critical=False,
            )
        certificate = builder.sign(ca_key, hashes.SHA256())
        return _pem_key(key), _pem(certificate) + _pem(ca)


def now_utc() -> datetime:
    """The present, as certificates count it."""
    return datetime.now(UTC) - _CLOCK_SKEW


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def _write_private(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(content)
