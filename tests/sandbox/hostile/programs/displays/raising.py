# does: raises every kind of exception from each method that is asked for a form
# expect: succeeded
# completed: true
# displays: 1
# displays_dropped: 0

class Unwilling(Exception):
    def __str__(self):
        raise self


class Thing:
    def _repr_mimebundle_(self, **options):
        raise Unwilling

    def _repr_html_(self):
        raise RecursionError

    def _repr_png_(self):
        return self._repr_png_()

    def _repr_svg_(self):
        raise MemoryError

    def __repr__(self):
        raise Unwilling


class Leaving:
    def _repr_html_(self):
        raise SystemExit(3)


display(Thing())
Leaving()
