"""The IPTC Digital Source Type of an image: its terms, and the XMP packet that carries one of them.

The property tells machines how an image was made. Files of other people may carry it, too, so packets are
parsed as hostile input: bounded in size, without a document type, and for this one property only. Knows no
image format (`xmp_embedding`) and no provider.

The terms and their definitions: https://cv.iptc.org/newscodes/digitalsourcetype/. The property and its
namespace: IPTC Photo Metadata Standard 2025.1, "Digital Source Type".
"""

import re
from enum import StrEnum
from xml.parsers import expat

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MAX_PACKET_BYTES = 1 << 18
"""Packets with edit histories have up to 100 kB. Larger ones are not read."""


class DigitalSourceType(StrEnum):
    """The terms of the vocabulary. The last three are retired: they are kept where a file has them."""

    DIGITAL_CAPTURE = "digitalCapture"
    COMPUTATIONAL_CAPTURE = "computationalCapture"
    NEGATIVE_FILM = "negativeFilm"
    POSITIVE_FILM = "positiveFilm"
    PRINT = "print"
    SCREEN_CAPTURE = "screenCapture"
    VIRTUAL_RECORDING = "virtualRecording"
    HUMAN_EDITS = "humanEdits"
    DIGITAL_CREATION = "digitalCreation"
    DATA_DRIVEN_MEDIA = "dataDrivenMedia"
    COMPOSITE_CAPTURE = "compositeCapture"
    ALGORITHMICALLY_ENHANCED = "algorithmicallyEnhanced"
    ALGORITHMIC_MEDIA = "algorithmicMedia"
    COMPOSITE = "composite"
    COMPOSITE_SYNTHETIC = "compositeSynthetic"
    COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA = "compositeWithTrainedAlgorithmicMedia"
    TRAINED_ALGORITHMIC_MEDIA = "trainedAlgorithmicMedia"
    MINOR_HUMAN_EDITS = "minorHumanEdits"
    DIGITAL_ART = "digitalArt"
    SOFTWARE_IMAGE = "softwareImage"


GENERATIVE = frozenset(
    {
        DigitalSourceType.TRAINED_ALGORITHMIC_MEDIA,
        DigitalSourceType.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA,
        DigitalSourceType.COMPOSITE_SYNTHETIC,
    }
)
"""The terms that say that generative AI made the image, or a part of it."""
RENDERED = GENERATIVE | {
    DigitalSourceType.ALGORITHMICALLY_ENHANCED,
    DigitalSourceType.ALGORITHMIC_MEDIA,
    DigitalSourceType.COMPOSITE,
}
"""The terms that a prediction can have. The contract lists them, too."""

_TERM_URI = re.compile(rf"\s*{re.escape(VOCABULARY).replace('http', 'https?', 1)}([A-Za-z]{{1,40}})\s*")
_MAX_URI_CHARACTERS = 200
_IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# The parser joins a namespace and a name with a space.
_PROPERTY = f"{_IPTC_EXTENSION} DigitalSourceType"
_RDF_ROOT, _DESCRIPTION, _RESOURCE = f"{_RDF} RDF", f"{_RDF} Description", f"{_RDF} resource"

# The wrapper and its fixed id are those of the XMP specification, part 1 (ISO 16684-1), section 7.3.
# `end="r"` says that the packet must not be edited in place.
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}">'
    f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC_EXTENSION}">'
    "<Iptc4xmpExt:DigitalSourceType>{uri}</Iptc4xmpExt:DigitalSourceType>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
    '<?xpacket end="r"?>'
)


def build_packet(source_type: DigitalSourceType) -> bytes:
    """Return the XMP packet that holds the property and nothing else: the same bytes for the same term."""
    return _PACKET.format(uri=VOCABULARY + source_type).encode()


def parse_packet(packet: bytes | None) -> DigitalSourceType | None:
    """Return the term in an XMP packet.

    Returns:
        None if there is no packet, if it is too large, malformed or has a document type, or if the image has
        no such property or another value. The property of a part of the image, such as an ingredient, does
        not count.
    """
    if packet is None or len(packet) > MAX_PACKET_BYTES:
        return None
    # UTF-8 is the only encoding of XMP in image files. A declared one would choose among Python's codecs.
    parser = expat.ParserCreate("utf-8", " ")
    reader = _PropertyReader()
    parser.StartElementHandler, parser.EndElementHandler = reader.start_element, reader.end_element
    parser.CharacterDataHandler = reader.add_text
    # Entities can only be declared in a document type: without one, nothing is expanded or loaded.
    parser.StartDoctypeDeclHandler = _reject_document_type
    try:
        parser.Parse(packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, _DocumentType):
        return None
    return _find_term(reader.value)


def _find_term(uri: str | None) -> DigitalSourceType | None:
    match = _TERM_URI.fullmatch(uri or "")
    return _TERMS.get(match[1]) if match else None


_TERMS = {str(term): term for term in DigitalSourceType}


class _DocumentType(Exception):
    """The packet has a document type."""


def _reject_document_type(*_: object) -> None:
    raise _DocumentType


class _PropertyReader:
    """Reads the property from any of its three notations: attribute, text or `rdf:resource`."""

    def __init__(self) -> None:
        self.value: str | None = None
        self._path: list[str] = []
        self._is_inside = False

    def start_element(self, name: str, attributes: dict[str, str]) -> None:
        is_of_image = self._path[-2:] == [_RDF_ROOT, _DESCRIPTION]
        if name == _DESCRIPTION and self._path[-1:] == [_RDF_ROOT]:
            self._found(attributes.get(_PROPERTY))
        elif name == _PROPERTY and is_of_image and self.value is None:
            self._is_inside = True
            self._found(attributes.get(_RESOURCE, ""))
        self._path.append(name)

    def end_element(self, _name: str) -> None:
        self._path.pop()
        self._is_inside = False

    def add_text(self, text: str) -> None:
        if self._is_inside and self.value is not None and len(self.value) < _MAX_URI_CHARACTERS:
            self.value += text[:_MAX_URI_CHARACTERS]

    def _found(self, value: str | None) -> None:
        # The first one counts.
        if self.value is None:
            self.value = value
