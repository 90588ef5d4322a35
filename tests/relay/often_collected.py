"""A plugin of pytest: the garbage collector looks at everything again and again, so that memory gone wrong shows at once."""

import gc

gc.set_threshold(50, 3, 3)
