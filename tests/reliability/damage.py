"""Other values at any place of a good content, and pickles that call something when they are read."""

import copy


def places(node, at=()):
    """The paths to all parts of nested dictionaries, lists and tuples, the empty one to the whole first."""
    yield at
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        yield from places(value, (*at, key))


def put(content, at, value):
    """The content with another value at a place; `...` removes it."""
    if not at:
        return None if value is ... else value
    content = list(content) if isinstance(content, tuple) else copy.copy(content)
    if value is ... and len(at) == 1:
        del content[at[0]]
    else:
        content[at[0]] = put(content[at[0]] if len(at) > 1 else None, at[1:], value)
    return content


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts
