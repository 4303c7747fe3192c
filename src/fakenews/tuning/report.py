"""stub"""


def write_report(study, folder):
    return None
