# does: never comes to an end of being shown
# expect: timed_out
# limits: {"timeout_ms": 1000}
# displays: 1
# completed: false

class Endless:
    def _repr_html_(self):
        while True:
            pass


display("before")
Endless()
