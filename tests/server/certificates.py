"""Certificates for tests of TLS."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(name="localhost", *, subject=True, issuer=None):
    """A certificate and its key, in PEM.

    Args:
        name: its common name and the DNS name for which it is valid; None for no DNS name.
        subject: False leaves the subject empty.
        issuer: the certificate and the key of the authority; None for a self-signed certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if subject else [])
    now = datetime.datetime.now(datetime.timezone.utc)
    authority, signer = subject, key
    if issuer is not None:
        authority = x509.load_pem_x509_certificate(issuer[0].encode()).subject
        signer = serialization.load_pem_private_key(issuer[1].encode(), None)
    builder = (
        x509.CertificateBuilder(authority, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if name is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    made = builder.sign(signer, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def quoted(pem):
    return '"' + pem.replace("\n", "\\n") + '"'
