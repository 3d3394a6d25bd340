"""What the recipe of the pictures has already: models, fast training steps, logs, files. Imported before all else."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.dirname(HERE)                       # where the exported files lie
os.environ.setdefault('FASHION_WORK', os.environ.get('MOVING_WORK', '/tmp/moving'))
sys.path.append(os.path.join(HERE, '../../fashion/recipe'))


def file(name):
    return os.path.join(FOLDER, name)
