"""Write and read the IPTC Digital Source Type of image files, independently of the code that is tested.

Pillow finds the packet in each format, and a general XML parser reads it.
"""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree

from PIL import Image, PngImagePlugin

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"


def read_source_type(data: bytes) -> str | None:
    """Return the term in the file's XMP packet, which must hold nothing else; None without a packet."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        packet = image.info.get("xmp")
    if packet is None:
        return None
    (description,) = ElementTree.fromstring(packet).iterfind(f"{{{RDF}}}RDF/{{{RDF}}}Description")
    assert description.attrib == {f"{{{RDF}}}about": ""}
    (value,) = description
    assert value.tag == f"{{{IPTC}}}DigitalSourceType"
    assert value.text is not None
    return value.text.removeprefix(VOCABULARY)


def build_foreign_packet(value: str, notation: str = "attribute") -> bytes:
    """Return a packet as another program writes it, with a location beside the value.

    Args:
        notation: `attribute`, `text` or `resource`.
    """
    name = "ext:DigitalSourceType"
    attribute, content = f' {name}="{value}"', ""
    if notation != "attribute":
        attribute = ""
        content = f"<{name}>{value}</{name}>" if notation == "text" else f'<{name} rdf:resource="{value}"/>'
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about=""/>'
        f'<rdf:Description rdf:about="" xmlns:ext="{IPTC}" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
        f' photoshop:City="Secret Town"{attribute}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>'
        f'{" " * 500}\n<?xpacket end="w"?>'
    ).encode()


def encode_with_packet(image: Image.Image, file_format: str, packet: bytes, **options: Any) -> bytes:
    """Return a file with an XMP packet, written by Pillow."""
    target = io.BytesIO()
    if file_format == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=bool(options.pop("compressed", False)))
        image.save(target, "PNG", pnginfo=texts, **options)
    else:
        image.save(target, file_format, xmp=packet, **options)
    return target.getvalue()
