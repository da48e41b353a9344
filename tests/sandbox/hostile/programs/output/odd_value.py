# does: answers with what JSON has no word for
# expect: succeeded
# value: null

def main():
    return [float('nan'), float('inf'), 10 ** 400, '\ud800', b'x', {1: 2}]
