"""C-STORE by hand, PDU by PDU, for objects that no library would send in this way."""

import struct

import pydicom
from pynetdicom.dsutils import encode
from tiny_node import CT

COMMAND, PIECE, LAST = 3, 0, 2
"""Message control headers: a whole command; a piece of a data set; its last one."""


def pdata(context, header, content):
    """A P-DATA-TF PDU with one value."""
    value = struct.pack(">LBB", len(content) + 2, context, header) + content
    return struct.pack(">BBL", 4, 0, len(value)) + value


def context_of(assoc, sop_class=CT):
    """Number of the presentation context accepted for a class."""
    return next(one.context_id for one in assoc.accepted_contexts if one.abstract_syntax == sop_class)


def command_of(uid, sop_class=CT):
    """The command set of a C-STORE request."""
    command = pydicom.Dataset()
    command.AffectedSOPClassUID, command.CommandField, command.MessageID = sop_class, 1, 1
    command.Priority, command.CommandDataSetType, command.AffectedSOPInstanceUID = 0, 1, uid
    coded = encode(command, True, True)
    return struct.pack("<HHLL", 0, 0, 4, len(coded)) + coded
