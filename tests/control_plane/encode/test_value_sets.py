"""What a column may be told as ranks in."""

import numpy as np
import pytest

from coding.elements import ELEMENTS, F32, F64
from coding.limits import MAX_STREAM
from coding.streams import Packer
from control_plane.encode.value_sets import Known, proposals


@pytest.mark.parametrize("element", [F32, F64])
@pytest.mark.parametrize("more, are_there", [(0, True), (1, False)])
def test_no_set_has_more_values_than_a_stream_holds(element, more, are_there):
    kind = ELEMENTS[element]
    values = np.arange(MAX_STREAM // kind.itemsize + more).astype(kind.dtype)
    found = list(proposals(Known(np.repeat(values, 2)), None, kind, 0, Packer(1)))
    assert [each.new for each in found] == [len(values)] * are_there
