"""An SVG chart with a logarithmic axis of y, for the scripts that draw what they measured."""

import math


class LogChart:
    WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 60, 20, 50, 50

    def __init__(self, title, x_label, y_label, x_range, y_range):
        self.x_range, self.y_range = x_range, [math.log10(y) for y in y_range]
        width, height = self.WIDTH, self.HEIGHT
        self.out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
                    f'<rect width="{width}" height="{height}" fill="white"/>',
                    f'<text x="{width / 2}" y="20" text-anchor="middle" font-size="14">{title}</text>',
                    f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">{x_label}</text>',
                    f'<text x="14" y="{height / 2}" text-anchor="middle" transform="rotate(-90 14 {height / 2})">{y_label}</text>']
        for power in range(math.ceil(self.y_range[0]), math.floor(self.y_range[1]) + 1):
            self.add(f'<path d="M{self.LEFT} {self.y(10**power):.1f}H{width - self.RIGHT}" stroke="#ddd"/>')
            self.label_y(10**power, f"{10**power:g}")

    def x(self, value):
        first, last = self.x_range
        return self.LEFT + (value - first) / max(1, last - first) * (self.WIDTH - self.LEFT - self.RIGHT)

    def y(self, value):
        low, high = self.y_range
        return self.HEIGHT - self.BOTTOM - (math.log10(value) - low) / max(1, high - low) * (self.HEIGHT - self.BOTTOM - self.TOP)

    def add(self, *elements):
        self.out += elements

    def label_x(self, value, size=12):
        self.add(f'<text x="{self.x(value):.1f}" y="{self.HEIGHT - self.BOTTOM + 18}" text-anchor="middle" font-size="{size}">{value}</text>')

    def label_y(self, value, text):
        self.add(f'<text x="{self.LEFT - 6}" y="{self.y(value) + 4:.1f}" text-anchor="end">{text}</text>')

    def line(self, points, color, width):
        self.add(f'<path d="M{" L".join(f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in points)}" fill="none" stroke="{color}" stroke-width="{width}"/>')

    def dot(self, x, y, color):
        self.add(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{color}"/>')

    def save(self, path):
        with open(path, "w") as f:
            f.write("\n".join(self.out) + "\n</svg>\n")
